"""A shop: FastAPI, SQLAlchemy on asyncpg, and Chancy, with the worker in the web program."""

"""How many there are of what the shop sells."""

from .database import AsyncConnection


async def add(conn: AsyncConnection, item: str, pieces: int) -> None:
    """Put so many on the shelf."""
    await conn.execute(
        "INSERT INTO stock VALUES (%s, %s) ON CONFLICT (item) DO UPDATE SET pieces = stock.pieces + excluded.pieces",
        (item, pieces),
    )


async def take(conn: AsyncConnection, item: str, pieces: int) -> None:
    """Take so many off it. Raises psycopg's `CheckViolation` where there are less."""
    await conn.execute("UPDATE stock SET pieces = pieces - %s WHERE item = %s", (pieces, item))

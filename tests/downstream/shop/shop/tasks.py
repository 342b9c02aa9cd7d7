"""What happens after the customer has the answer.

A job may run more than once, after a crash: a parcel is sent once for all that, while a mail may come twice.
"""

from datetime import timedelta

import chancy
from chancy import Backoff, Limit, task

from . import courier, database, mail


@task(queue="mail", max_attempts=5, retry=Backoff(base=timedelta(seconds=30)))
def confirm(order_id: int, email: str) -> None:
    """A plain function runs in a thread. With the mail server down it is tried again after 30 s, 90 s and so on."""
    mail.send(email, f"Thank you for order {order_id}")


@task(queue="mail")
def announce_parcel(order_id: int, email: str, tracking: str) -> None:
    """Tell the customer that the parcel is under way."""
    mail.send(email, f"Order {order_id} is under way: {tracking}")


@task(queue="mail", priority=-10)
def ask_for_review(order_id: int, email: str) -> None:
    """Nobody waits for this mail: it is submitted with a delay, and the others go first."""
    mail.send(email, f"How do you like what you ordered as {order_id}?")


@task(limits=[Limit.time(timedelta(seconds=10))])
async def deliver(order_id: int) -> str:
    """A coroutine runs on the worker's loop, and is cancelled there after 10 s. Returns the tracking number.

    The next job is submitted in the transaction that writes the number down, by whichever attempt is the first to do
    so: the customer gets one mail.
    """
    tracking = await courier.book(order_id)
    async with database.connection() as conn, conn.transaction():
        found = await conn.execute(
            "UPDATE orders SET tracking = %s WHERE id = %s AND tracking IS NULL RETURNING email", (tracking, order_id)
        )
        if row := await found.fetchone():
            await announce_parcel.submit(conn, order_id, row[0], tracking)
    return tracking


@task(queue="mail")
def advertise(item: str, email: str) -> None:
    """One mail of many."""
    mail.send(email, f"New in the shop: {item}")


@task
async def advertise_to_all(item: str, emails: list[str]) -> int:
    """A job for each customer, all or none, so that one bad address fails alone. Returns how many there are."""
    async with database.connection() as conn, conn.transaction():
        jobs = await chancy.submit_many(conn, [advertise.bind(item, email) for email in emails])
    return len(jobs)

"""What the shop has around its jobs."""


async def counted(current, proceed):
    """A middleware that counts nothing."""
    return await proceed()

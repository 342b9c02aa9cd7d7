"""The worker: `SHOP_DSN=… CHANCY_DSN=… chancy-worker shop.worker:app`."""

from chancy import Chancy, Queue

from . import tasks as tasks  # a worker performs the tasks that it has imported

app = Chancy(queues=[Queue("default"), Queue("mail", concurrency=4)])

"""When a round is sent, for which queues, and what becomes of its answer."""

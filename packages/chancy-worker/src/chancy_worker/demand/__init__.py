"""What the next round may claim: which queues may have something, how much of each, and what is left out."""

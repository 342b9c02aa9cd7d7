"""How an idle worker hears of work: it is rung up, or looks by the clock."""

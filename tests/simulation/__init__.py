"""One seed, a queue and a loop: the production driver in a world that fails on purpose."""

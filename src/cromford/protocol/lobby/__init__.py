"""Who waits for a factory, and whom a build takes: wishes, joins, plans, schedules."""

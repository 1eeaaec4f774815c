"""The exit agent: publishes other people's exits at their deadlines. It has no key of theirs."""

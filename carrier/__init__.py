"""Between a server and a worker on another machine: the first program in the worker's container, and the form in which trees travel."""

"""Commands that run a process: `up`, `serve`, `worker`, `migrate`, `doctor`."""

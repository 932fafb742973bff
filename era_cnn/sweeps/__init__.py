"""Many runs: planned, done by any launcher, resumed, and compared."""

"""What people read: tables over runs and sweeps, made from their folders alone."""

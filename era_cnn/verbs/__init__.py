"""What the commands of the command line do: reads their words, and calls the room that does the work."""

"""Models: functions and classes over arrays; they never touch a file."""

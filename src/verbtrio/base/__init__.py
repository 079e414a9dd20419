"""What everything else stands on: close codes and causes, errors, limits, types, counters, timers."""

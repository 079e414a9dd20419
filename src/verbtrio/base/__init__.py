"""The ground of all other packages: close codes and causes, errors, limits, types, counters, timers."""

"""How fast verbtrio is, and what else there is: `nox -s bench`. See docs/performance.md."""

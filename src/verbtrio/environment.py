"""What a program is told by its environment: a public door."""

from verbtrio.guards.secrets import is_production as is_production
from verbtrio.guards.secrets import port as port
from verbtrio.guards.secrets import secret as secret

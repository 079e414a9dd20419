"""What Redis does in one step: a script in Lua. Pure.

Each has its keys, all of one room, in `KEYS`, and what it is told in `ARGV`, whose first entry is the command that
publishes: `PUBLISH` or, in a cluster, `SPUBLISH`. Times are Redis's own, in milliseconds. What is stored and published
is made of fields (`fields.py`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

_PRELUDE = """
local function field(value)
  if not value then return '\\255\\255\\255\\255' end
  return struct.pack('>I4', #value) .. value
end
local function unpack_fields(data)
  local fields, count, start = {}, 0, 1
  while start <= #data do
    local length = struct.unpack('>I4', data, start)
    start = start + 4
    count = count + 1
    if length == 4294967295 then
      fields[count] = false
    else
      fields[count] = string.sub(data, start, start + length - 1)
      start = start + length
    end
  end
  return fields
end
local function number(value) return string.format('%.0f', value) end
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""


@dataclass(frozen=True)
class Script:
    """A script, which is called by its hash."""

    text: str
    sha: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", _PRELUDE + self.text)
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest().encode())

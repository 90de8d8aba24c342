"""PluginManager: finds plugins, keeps what they registered under which name, and reports the ones it had to skip."""

import ast
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.abc import InspectLoader
from importlib.metadata import Distribution, EntryPoint, distributions
from importlib.util import find_spec
from numbers import Number
from types import NoneType
from typing import Any, cast, get_args

import pluggy

from textgym import hookspecs
from textgym.errors import InvalidArgumentError, MissingExtraError, PluginWarning, UnknownNameError, one_line

ENTRY_POINT_GROUP = "textgym"
OWN_DISTRIBUTION = "textgym"  # its plugins register first, so that a stranger's duplicate is the one reported
KINDS = ("reward", "task", "model", "agent", "judgement", "tuned_setting")
HOOKS = frozenset(name for name in vars(hookspecs) if name.startswith("register_"))


@dataclass(frozen=True)
class Provenance:
    """Where a plugin comes from.

    Attributes:
        plugin: The plugin's name: its entry point, or the module or class it is.
        distribution: The installed distribution that declares it, "" for a plugin registered in code.
        version: That distribution's version, "" for a plugin registered in code.
    """

    plugin: str
    distribution: str = ""
    version: str = ""

    def __str__(self) -> str:
        return f"{self.plugin} ({self.distribution} {self.version})" if self.distribution else self.plugin


@dataclass(frozen=True)
class Family:
    """Many names registered as one: of a family registered as "family", every member is called "family:member".

    Attributes:
        members: Returns the names of the members. Called only when a member is looked up or counted, so it may import a package, and raise
            `MissingExtraError` where that is not installed.
        factory: Returns the factory of a member, given its name.
        summary: What the members are, in one line.
    """

    members: Callable[[], Sequence[str]]
    factory: Callable[[str], Callable[..., Any]]
    summary: str


@dataclass(frozen=True)
class Registration:
    """One name that a plugin registered: what kind it is, how to make it, and who registered it.

    Attributes:
        kind: "reward", "task", "model", "agent", "judgement" or "tuned_setting".
        name: As registered.
        source: The factory, or where it is: "package.module:name", imported at its first use.
        provenance: Who registered it.
    """

    kind: str
    name: str
    source: Callable[..., Any] | str
    provenance: Provenance

    @property
    def factory(self) -> Callable[..., Any]:
        """What makes it; imported now if it was registered by where it is."""
        if not isinstance(self.source, str):
            return self.source
        module, _, name = self.source.partition(":")
        try:
            found = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            if isinstance(error, MissingExtraError):
                raise
            message = f"{self.kind} {self.name!r} of plugin {self.provenance} cannot be imported from {self.source!r}: {one_line(error)}"
            raise InvalidArgumentError(message) from error
        if not callable(found):
            raise InvalidArgumentError(f"{self.kind} {self.name!r} of plugin {self.provenance}: {self.source!r} is {found!r}, not callable")
        return cast(Callable[..., Any], found)

    @property
    def summary(self) -> str:
        """The first line of the factory's documentation - or, where it is not imported yet, of its module's; "" without one."""
        text = inspect.getdoc(self.source) if not isinstance(self.source, str) else _module_documentation(self.source.partition(":")[0])
        lines = (text or "").splitlines()
        return lines[0] if lines else ""


@dataclass
class PluginManager:
    """Plugins, the names they registered, and the problems met on the way.

    A broken plugin never raises here: it is skipped, a line in `problems` says which and why, and a `PluginWarning` is issued.
    """

    _plugins: dict[str, Provenance] = field(default_factory=dict)
    _problems: list[str] = field(default_factory=list)
    _names: dict[str, dict[str, Registration]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    _families: dict[str, dict[str, tuple[Family, Provenance]]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    _deferred: dict[str, tuple[EntryPoint, Distribution]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pluggy = pluggy.PluginManager("textgym")
        self._pluggy.add_hookspecs(hookspecs)

    # --- finding plugins -------------------------------------------------------------------------------------------------------

    def discover(self) -> None:
        """Load every installed plugin of the entry-point group `textgym`, the project's own first, then by name."""
        found: dict[str, tuple[EntryPoint, Distribution]] = {}
        seen = set()
        for distribution in distributions():
            entry_points = [entry_point for entry_point in distribution.entry_points if entry_point.group == ENTRY_POINT_GROUP]
            if entry_points and distribution.name not in seen:  # the first of a name on sys.path is the one that imports see
                seen.add(distribution.name)
                found.update({f"{distribution.name}:{entry_point.name}": (entry_point, distribution) for entry_point in entry_points})
        for key, (entry_point, distribution) in sorted(found.items(), key=lambda item: (item[1][1].name != OWN_DISTRIBUTION, item[0])):
            self._load(key, entry_point, distribution)

    def _load(self, key: str, entry_point: EntryPoint, distribution: Distribution) -> None:
        provenance = Provenance(entry_point.name, distribution.name, distribution.version)
        try:
            # The user imported the plugin, the plugin imports textgym, and we are in the middle: finish at the next look-up.
            if _is_being_imported(entry_point.module):
                self._deferred[key] = (entry_point, distribution)
                return
            plugin = entry_point.load()
        except (Exception, SystemExit) as error:
            if isinstance(error, ImportError) and _is_half_way(entry_point.module.partition(".")[0], error.name or ""):
                self._deferred[key] = (entry_point, distribution)
                return
            self._report(provenance, f"failed to import {entry_point.value!r}: {one_line(error)}")
            return
        self.register(plugin, provenance)

    def register(self, plugin: object, provenance: Provenance | None = None) -> None:
        """Register a module, class instance or other object whose `@textgym.hookimpl` functions are to be called.

        Args:
            plugin: The object that carries the hook functions.
            provenance: Where it comes from; by default its own name, without a distribution.
        """
        provenance = provenance or Provenance(getattr(plugin, "__name__", type(plugin).__name__))
        if (reason := self._refusal(plugin)) is not None:
            self._report(provenance, reason)
            return
        try:
            self._pluggy.register(plugin, name=f"{provenance.distribution}:{provenance.plugin}")
        except Exception as error:  # pluggy raises ValueError and its own validation error; both only concern this plugin
            self._report(provenance, one_line(error))
            return
        self._plugins[f"{provenance.distribution}:{provenance.plugin}"] = provenance
        for kind in KINDS:
            self._call(plugin, f"register_{kind}s", provenance, register=self._registrar(kind, provenance))

    def call_register_commands(self, cli: Any) -> None:
        """Let every plugin add its commands to the command line's click group."""
        for plugin in list(self._pluggy.get_plugins()):
            provenance = self._plugins[str(self._pluggy.get_name(plugin))]
            self._call(plugin, "register_commands", provenance, cli=cli)

    def _refusal(self, plugin: object) -> str | None:
        """Return why `plugin` cannot be registered at all, or None."""
        marked = [name for name in dir(plugin) if self._pluggy.parse_hookimpl_opts(plugin, name) is not None]
        for name in marked:
            if name not in HOOKS:
                near = get_close_matches(name, HOOKS, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                return f"implements the unknown hook {name!r}{hint} (hooks: {', '.join(sorted(HOOKS))})"
        return None if marked else "implements no hook; mark its register_... functions with @textgym.hookimpl"

    def _call(self, plugin: object, hook: str, provenance: Provenance, **arguments: Any) -> None:
        others = [other for other in self._pluggy.get_plugins() if other is not plugin]
        try:
            self._pluggy.subset_hook_caller(hook, remove_plugins=others)(**arguments)
        except (Exception, SystemExit) as error:
            self._report(provenance, f"{hook} failed: {one_line(error)}")

    def _registrar(self, kind: str, provenance: Provenance) -> Callable[[str, Callable[..., Any] | Family | str], None]:
        def register(name: str, factory: Callable[..., Any] | Family | str) -> None:
            located = isinstance(factory, str) and all(part.isidentifier() for part in factory.replace(":", ".", 1).split("."))
            located = located and ":" in str(factory)
            if not isinstance(name, str) or not name or not (callable(factory) or located or isinstance(factory, Family)):
                wanted = "a name and a callable or 'package.module:name'"
                self._report(provenance, f"register(name, factory) wants {wanted}, got {name!r} and {factory!r}")
                return
            if isinstance(factory, Family) and ":" in name:
                self._report(provenance, f"the family {name!r} must have a name without a colon: its members are called 'family:member'")
                return
            single, family = self._names[kind].get(name), self._families[kind].get(name)
            if single is not None or family is not None:
                first = single.provenance if single is not None else family[1] if family is not None else None
                self._report(provenance, f"{kind} {name!r} is already registered by {first}; this one was skipped")
                return
            if isinstance(factory, Family):
                self._families[kind][name] = (factory, provenance)
            else:
                self._names[kind][name] = Registration(kind, name, factory, provenance)

        return register

    def _report(self, provenance: Provenance, reason: str) -> None:
        line = f"plugin {provenance}: {reason}"
        self._problems.append(line)
        warnings.warn(line, PluginWarning, stacklevel=2)

    # --- looking names up ------------------------------------------------------------------------------------------------------

    @property
    def plugins(self) -> dict[str, Provenance]:
        """Every plugin that was registered, by distribution and name."""
        self._load_deferred()
        return self._plugins

    @property
    def problems(self) -> list[str]:
        """What was skipped and why, a line each."""
        self._load_deferred()
        return self._problems

    def registrations(self, kind: str) -> Mapping[str, Registration]:
        """Return everything registered of a kind ("reward", "task", ...), by name; without the members of families."""
        self._load_deferred()
        return self._names[kind]

    def families(self, kind: str) -> Mapping[str, tuple[Family, Provenance]]:
        """Return the families registered of a kind, by name, and who registered each."""
        self._load_deferred()
        return self._families[kind]

    def knows(self, kind: str, name: str) -> bool:
        """Return whether a name is registered, or begins with a family's; the family is not asked whether it has the member."""
        return name in self.registrations(kind) or name.partition(":")[0] in self.families(kind)

    def find(self, kind: str, name: str) -> Registration:
        """Return the registration of a name or "family:member"; raises `UnknownNameError` with the nearest name if there is none."""
        known, families = self.registrations(kind), self.families(kind)
        if name in known:
            return known[name]
        prefix, _, member = name.partition(":")
        if prefix not in families:
            raise UnknownNameError(kind, name, [*known, *(f"{family}:{member or '...'}" for family in families)])
        family, provenance = families[prefix]
        members = family.members()
        if not member:
            raise InvalidArgumentError(f"{prefix!r} is a family of {len(members)} {kind}s: name one, like '{prefix}:{members[0]}'")
        if member not in members:
            raise UnknownNameError(kind, name, [f"{prefix}:{m}" for m in members])
        return Registration(kind, name, family.factory(member), provenance)

    def _load_deferred(self) -> None:
        deferred, self._deferred = self._deferred, {}
        for key, (entry_point, distribution) in deferred.items():
            self._load(key, entry_point, distribution)

    def make(self, kind: str, name: str, options: Mapping[str, Any]) -> Any:
        """Call the factory registered under a name; an option it does not take is an error that lists the ones it takes."""
        registration = self.find(kind, name)
        check_options(f"{kind} {name!r}", registration.factory, options)
        return registration.factory(**options)


def check_options(owner: str, factory: Callable[..., Any], options: Mapping[str, Any], given: int = 0) -> None:
    """Raise if `factory` does not take an option, or wants a number where a text, say, is given.

    `given` positional parameters are filled by the caller.
    """
    parameters = list(inspect.signature(factory).parameters.values())
    filled = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:given]
    parameters = [p for p in parameters if p not in filled]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL)]
    for option in options:
        if option not in known:
            near = get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InvalidArgumentError(f"{owner} has no option {option!r}: {hint}options: {', '.join(known) or 'none'}")
    for parameter in parameters:
        if parameter.name in options:
            _check_number(owner, parameter, options[parameter.name])


def _check_number(owner: str, parameter: inspect.Parameter, value: Any) -> None:
    """Raise if a parameter that is annotated as nothing but numbers (or true and false, or None) is given another thing."""
    wanted = get_args(parameter.annotation) or (parameter.annotation,)
    if not set(wanted) <= {int, float, bool, NoneType} or set(wanted) == {NoneType}:
        return
    if (value is None and NoneType in wanted) or isinstance(value, Number) or hasattr(value, "__array__"):
        return
    what = "true or false" if bool in wanted else "a number"
    raise InvalidArgumentError(f"{owner}: {parameter.name} must be {what}, got {value!r}")


@cache
def installed_plugins() -> PluginManager:
    """Return the process's manager with all installed plugins, found at the first call."""
    manager = PluginManager()
    manager.discover()
    return manager


def _module_documentation(module: str) -> str | None:
    """Return the docstring of a module without running it; None if it cannot be found."""
    try:
        spec = find_spec(module)
        source = spec.loader.get_source(module) if spec is not None and isinstance(spec.loader, InspectLoader) else None
        return ast.get_docstring(ast.parse(source)) if source else None
    except (ImportError, SyntaxError, ValueError):
        return None


def _is_half_way(package: str, missed: str) -> bool:
    """Say whether a package is being imported, or that module of it whose name could not be imported from."""
    return _is_being_imported(package) or (missed.partition(".")[0] == package and _is_being_imported(missed))


def _is_being_imported(module: str) -> bool:
    spec = getattr(sys.modules.get(module), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))

"""Prints the semantic conventions as JSON, as the Python package of OpenTelemetry has them: attributes with the values of those that
have a closed list, metrics with their units, and what is deprecated of both.
"""
import ast
import enum
import importlib
import json
import pathlib
import pkgutil

import opentelemetry.semconv

FOLDERS = ["_incubating.attributes", "_incubating.metrics", "attributes", "metrics"]


def said(source):
    """Constants of a module with the text below each."""
    body = ast.parse(source).body
    for node, after in zip(body, body[1:]):
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant):
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                yield node.target.id, node.value.value, after.value.value.strip()


def line_of(text, key):
    return next((line.removeprefix(key) for line in text.splitlines() if line.startswith(key)), None)


attributes, metrics = {}, {}
for folder in FOLDERS:
    package = importlib.import_module(f"opentelemetry.semconv.{folder}")
    for found in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        # Closed lists are classes whose names are those of the constants in another spelling.
        lists = {
            name.removesuffix("Values").lower(): [value.value for value in kind]
            for name, kind in vars(module).items()
            if isinstance(kind, type) and issubclass(kind, enum.Enum) and name.endswith("Values")
        }
        for constant, name, text in said(pathlib.Path(module.__file__).read_text()):
            # What became stable is deprecated where it was before, and is read again from there.
            is_deprecated = text.startswith("Deprecated") and "in favor of stable" not in text
            known = {"is_deprecated": is_deprecated}
            if folder.endswith("metrics"):
                old = metrics.get(name, {})
                unit, instrument = line_of(text, "Unit: "), line_of(text, "Instrument: ")
                known |= {"unit": unit or old.get("unit"), "instrument": instrument or old.get("instrument")}
                metrics[name] = known
            else:
                old = attributes.get(name, {})
                values = lists.get(constant.replace("_", "").lower()) or old.get("values")
                attributes[name] = known | {"values": values}

print(json.dumps({"attributes": attributes, "metrics": metrics}))

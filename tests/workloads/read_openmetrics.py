"""Reads an OpenMetrics page from standard input with Prometheus's own Python client, which is strict, and prints JSON.

A list of families: name, type, unit, and samples with name, labels, value and exemplar (labels, value, time in seconds).
Needs `pip install prometheus-client`.
"""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families


def exemplar(found):
    return found and {"labels": found.labels, "value": found.value, "time_s": found.timestamp and float(found.timestamp)}


json.dump(
    [
        {
            "name": family.name,
            "type": family.type,
            "unit": family.unit,
            "samples": [
                {
                    "name": sample.name,
                    "labels": sample.labels,
                    "value": sample.value,
                    "exemplar": exemplar(sample.exemplar),
                }
                for sample in family.samples
            ],
        }
        for family in text_string_to_metric_families(sys.stdin.read())
    ],
    sys.stdout,
    # Infinity and NaN have no form in JSON.
    default=str,
)

"""Runs an exported network in onnxruntime on the rows of a file whose windows have no gap, and compares it with what `residua score` wrote.

check.py ROWS.csv SCORES.csv NETWORK.onnx [--residuals] [--latent]: prints the number of compared rows and the largest differences, in
standard deviations of the training records (residuals) or as they are (latent values).
"""

import argparse
import csv
import json
from collections import defaultdict

import numpy
import onnx
import onnxruntime

parser = argparse.ArgumentParser()
parser.add_argument("rows")
parser.add_argument("scores")
parser.add_argument("network")
parser.add_argument("--residuals", action="store_true")
parser.add_argument("--latent", action="store_true")
wanted = parser.parse_args()

onnx.checker.check_model(onnx.load(wanted.network), full_check=True)
session = onnxruntime.InferenceSession(wanted.network, providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
features = json.loads(about["features"])
scaler_mean, scaler_scale = numpy.array(json.loads(about["mean"])), numpy.array(json.loads(about["scale"]))
series_scales = json.loads(about["series"])
inputs = {i.name: i for i in session.get_inputs()}
window = inputs["records"].shape[1]

by_series = defaultdict(list)
with open(wanted.rows, newline="") as rows, open(wanted.scores, newline="") as scores:
    for row, score in zip(csv.DictReader(rows), csv.DictReader(scores), strict=True):
        by_series[score["series"]].append((row, score))

compared, off_residual, off_latent = 0, 0.0, 0.0
for name, pairs in by_series.items():
    values = numpy.array([[float(row[f] or "nan") for f in features] for row, _ in pairs])
    own_mean, own_scale = (numpy.array(part, dtype=numpy.float64) for part in series_scales.get(name, ([0.0] * len(features), [1.0] * len(features))))
    scaled = ((values - scaler_mean) / scaler_scale - own_mean) / own_scale
    averages = []
    if "average" in inputs:
        clip, weight = float(about["clip"]), float(about["average_weight"])
        soft = clip * numpy.arcsinh(scaled / clip) if clip > 0 else scaled
        for record in soft.astype(numpy.float32):
            averages.append(record if not averages else averages[-1] + numpy.float32(weight) * (record - averages[-1]))
    for at in range(window - 1, len(values)):
        score = pairs[at][1]
        # What is missing is filled in by whoever runs the network.
        if score["verdict"] in ("warming", "empty") or numpy.isnan(values[at - window + 1 : at + 1]).any():
            continue
        feed = {"records": values[at - window + 1 : at + 1][None]}
        if "average" in inputs:
            feed["average"] = averages[at][None]
        if "series_mean" in inputs:
            feed["series_mean"], feed["series_scale"] = own_mean[None, None], own_scale[None, None]
        code, residual = session.run(["code", "residual"], feed)
        compared += 1
        if wanted.residuals:
            theirs = numpy.array([float(score[f"residual.{f}"]) for f in features]) / scaler_scale / own_scale
            ours = residual[0, (window - 1) * len(features) : window * len(features)]
            off_residual = max(off_residual, numpy.abs(theirs - ours).max())
        if wanted.latent:
            theirs = numpy.array([float(score[f"latent.{unit}"]) for unit in range(code.shape[1])])
            off_latent = max(off_latent, numpy.abs(theirs - code[0]).max())

print(f"{compared} rows compared, residuals differ by {off_residual:.3g}, latent values by {off_latent:.3g}")

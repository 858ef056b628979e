"""Autoencoders as other programs write them, with random weights, and whether residua computes the same.

foreign.py make KIND ROWS.csv NETWORK.onnx          writes one for rows of this file
foreign.py check KIND ROWS.csv SCORES.csv NETWORK.onnx   runs it in onnxruntime and compares residuals with what `residua score` wrote: prints
                                                    the number of compared rows and the largest difference, in the sensors' standard deviations
"""

import csv
import sys

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

# Kind: how values are scaled, records of a window.
KINDS = {"torch": ("standard", 1), "keras": ("min-max", 1), "whole": ("raw", 1), "window": ("standard", 3), "deep": ("standard", 1)}


def rows_of(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name != "machine"]
    return names, numpy.array([[float(row[name]) for name in names] for row in rows])


def scaler(kind, values):
    how, _ = KINDS[kind]
    if how == "standard":
        return values.mean(0), values.std(0)
    if how == "min-max":
        return values.min(0), numpy.ptp(values, axis=0)
    return numpy.zeros(values.shape[1]), numpy.ones(values.shape[1])


class Graph:
    def __init__(self):
        self.nodes, self.constants, self.random = [], [], numpy.random.default_rng(7)

    def constant(self, array, dtype=numpy.float32):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(numpy.asarray(array, dtype), name))
        return name

    def node(self, op, *inputs, **attributes):
        output = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def weights(self, rows, columns):
        return self.random.normal(0, (2 / (rows + columns)) ** 0.5, (rows, columns))

    def bias(self, n):
        return self.random.normal(0, 0.1, n)


def make(kind, values):
    graph, d = Graph(), values.shape[1]
    _, window = KINDS[kind]
    width, x = d * window, "input"
    if kind == "torch":
        # nn.Linear becomes Gemm with the weights transposed.
        for at, (a, b, op) in enumerate([(d, 6, "LeakyRelu"), (6, 3, "Relu"), (3, 6, "Sigmoid"), (6, d, None)]):
            x = graph.node("Gemm", x, graph.constant(graph.weights(a, b).T), graph.constant(graph.bias(b)), transB=1)
            x = graph.node(op, x, **({"alpha": 0.2} if op == "LeakyRelu" else {})) if op else x
    elif kind == "keras":
        # Dense layers become MatMul and Add; the last one is a sigmoid.
        for a, b, op in [(d, 5, "Relu"), (5, 2, None), (2, 5, "Tanh"), (5, d, "Sigmoid")]:
            x = graph.node("Add", graph.node("MatMul", x, graph.constant(graph.weights(a, b))), graph.constant(graph.bias(b)))
            x = graph.node(op, x) if op else x
    elif kind == "whole":
        # It scales, and scales back; and has a normalisation and a dropout, which does nothing here.
        mean, scale = graph.constant(values.mean(0)), graph.constant(values.std(0))
        x = graph.node("Div", graph.node("Sub", x, mean), scale)
        x = graph.node("Gemm", x, graph.constant(graph.weights(d, 6)), graph.constant(graph.bias(6)))
        moments = [graph.constant(v) for v in (graph.random.uniform(0.5, 2, 6), graph.bias(6), graph.bias(6), graph.random.uniform(0.5, 2, 6))]
        x = graph.node("Relu", graph.node("BatchNormalization", x, *moments))
        x = graph.node("Dropout", graph.node("Gemm", x, graph.constant(graph.weights(6, 3)), graph.constant(graph.bias(3))))
        x = graph.node("Gemm", x, graph.constant(graph.weights(3, d)), graph.constant(graph.bias(d)))
        x = graph.node("Add", graph.node("Mul", x, scale), mean)
    elif kind == "window":
        # Records of a window, flattened; and weights that are a node of the graph, turned.
        x = graph.node("Flatten", x, axis=1)
        turned = graph.node("Transpose", graph.node("Constant", value=numpy_helper.from_array(graph.weights(4, width).astype(numpy.float32))))
        x = graph.node("Tanh", graph.node("Add", graph.node("MatMul", x, turned), graph.constant(graph.bias(4))))
        x = graph.node("Gemm", x, graph.constant(graph.weights(4, width)), graph.constant(graph.bias(width)))
        x = graph.node("Reshape", x, graph.constant([-1, window, d], numpy.int64))
    else:
        sizes = [d, 7, 6, 5, 3, 5, 6, 7, d]
        for a, b in zip(sizes, sizes[1:]):
            x = graph.node("Gemm", x, graph.constant(graph.weights(a, b)), graph.constant(graph.bias(b)))
            x = graph.node("Tanh", x) if (a, b) != (7, d) else x
    shape = ["N", window, d] if kind == "window" else ["N", d]
    out = helper.make_tensor_value_info(x, TensorProto.FLOAT, shape)
    made = helper.make_graph(graph.nodes, kind, [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)], [out], graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def main():
    command, kind, rows, *paths = sys.argv[1:]
    names, values = rows_of(rows)
    if command == "make":
        onnx.save(make(kind, values), paths[0])
        return
    scores, network = paths
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    (shift, unit), (_, window) = scaler(kind, values), KINDS[kind]
    scaled = ((values - shift) / unit).astype(numpy.float32)
    compared, off = 0, 0.0
    with open(scores, newline="") as file:
        for at, score in enumerate(csv.DictReader(file)):
            if score["verdict"] in ("warming", "empty"):
                continue
            x = scaled[at - window + 1 : at + 1]
            rebuilt = session.run(None, {session.get_inputs()[0].name: x[None] if window > 1 else x})[0].reshape(window, -1)[-1]
            ours = numpy.array([float(score[f"residual.{name}"]) for name in names])
            off = max(off, numpy.abs((rebuilt * unit + shift - values[at] - ours) / values.std(0)).max())
            compared += 1
    print(f"{compared} rows compared, residuals differ by {off:.3g}")


main()

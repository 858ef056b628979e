"""What residua is measured against, in Python. Reads requests, one line each, writes one number for each: seconds for a record.

    score SHAPE BATCH COUNT    onnxruntime, one thread, autoencoder of that shape (38-24-8-24-38), COUNT times BATCH records
    pyod SHAPE BATCH COUNT     PyOD's AutoEncoder of the same widths, decision_function, one thread
    train SHAPE BATCH COUNT    torch, one thread, Adam with its defaults: COUNT steps
    orjson FILE COUNT          a JSON record to the list of its values
    msgspec FILE COUNT         the same by a decoder for a struct of these fields
"""

import sys
import time

import msgspec
import numpy
import onnx
import onnxruntime
import orjson
import torch
from onnx import TensorProto, helper
from pyod.models.auto_encoder import AutoEncoder


def session(shape):
    """Dense layers with tanh after the first and the third, random weights."""
    random = numpy.random.default_rng(1)
    nodes, tensors, before = [], [], "x"
    for layer, (inputs, outputs) in enumerate(zip(shape, shape[1:])):
        for name, size in ((f"w{layer}", (inputs, outputs)), (f"b{layer}", (outputs,))):
            values = random.uniform(-0.3, 0.3, size).astype(numpy.float32)
            tensors.append(onnx.numpy_helper.from_array(values, name))
        dense = f"d{layer}"
        nodes.append(helper.make_node("Gemm", [before, f"w{layer}", f"b{layer}"], [dense]))
        before = dense
        if layer % 2 == 0:
            before = f"t{layer}"
            nodes.append(helper.make_node("Tanh", [dense], [before]))
    tensor = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, shape[0]])
    graph = helper.make_graph(nodes, "autoencoder", [tensor("x")], [tensor(before)], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def timed(count, run):
    run()
    since = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - since) / count


def score(sessions, shape, batch, count):
    widths = [int(width) for width in shape.split("-")]
    if shape not in sessions:
        sessions[shape] = session(widths)
    x = numpy.random.default_rng(2).uniform(-1, 1, (batch, widths[0])).astype(numpy.float32)
    feed = {"x": x}
    return timed(count, lambda: sessions[shape].run(None, feed)) / batch


def pyod(detectors, shape, batch, count):
    widths = [int(width) for width in shape.split("-")]
    if shape not in detectors:
        detector = AutoEncoder(hidden_neuron_list=widths[1:3], hidden_activation_name="tanh", epoch_num=1, verbose=0)
        detectors[shape] = detector.fit(numpy.random.default_rng(1).uniform(-1, 1, (1_000, widths[0])))
    x = numpy.random.default_rng(2).uniform(-1, 1, (batch, widths[0]))
    return timed(count, lambda: detectors[shape].decision_function(x)) / batch


def train(trainings, shape, batch, count):
    widths = [int(width) for width in shape.split("-")]
    if shape not in trainings:
        layers = []
        for layer, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
            layers += [torch.nn.Linear(inputs, outputs)] + [torch.nn.Tanh()] * (layer % 2 == 0)
        network = torch.nn.Sequential(*layers)
        trainings[shape] = network, torch.optim.Adam(network.parameters()), torch.rand(50_000, widths[0])
    network, optimiser, records = trainings[shape]
    loss_of, batches = torch.nn.MSELoss(), records.split(batch)
    at = 0

    def step():
        nonlocal at
        x = batches[at % len(batches)]
        at += 1
        optimiser.zero_grad()
        loss_of(network(x), x).backward()
        optimiser.step()

    return timed(count, step) / batch


def decode(name, path, count):
    with open(path, "rb") as file:
        record = file.read()
    names = list(orjson.loads(record))
    if name == "orjson":
        def run():
            values = orjson.loads(record)
            return [values[name] for name in names]
    else:
        fields = msgspec.defstruct("Record", [(name, float) for name in names])
        decoder = msgspec.json.Decoder(fields)
        run = lambda: msgspec.structs.astuple(decoder.decode(record))
    return timed(count, run)


def main():
    torch.set_num_threads(1)
    sessions, detectors, trainings = {}, {}, {}
    for line in sys.stdin:
        match line.split():
            case ["score", shape, batch, count]:
                took = score(sessions, shape, int(batch), int(count))
            case ["pyod", shape, batch, count]:
                took = pyod(detectors, shape, int(batch), int(count))
            case ["train", shape, batch, count]:
                took = train(trainings, shape, int(batch), int(count))
            case ["orjson" | "msgspec" as name, path, count]:
                took = decode(name, path, int(count))
            case _:
                sys.exit(f"unknown request {line!r}")
        print(took, flush=True)


if __name__ == "__main__":
    main()

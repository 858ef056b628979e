# What takes longer than a test run. `cargo test` runs all tests, and a short run of the faults.

# All faults of tests/faults/main.rs, hours; SHARE=0.05 for a part of them, FAULTS="--only kill --delivery exactly-once" for some.
SHARE ?= 1
FAULTS ?=

.PHONY: test-faults fuzz fuzz-decode bench-peers
test-faults:
	cargo test --release --test faults -- --share $(SHARE) $(FAULTS)

# Any bytes as a message, for so many seconds, from the documents in fuzz/seeds on; needs `cargo install cargo-fuzz` and a nightly compiler.
# `cargo test` feeds a million.
SECONDS ?= 60

fuzz:
	mkdir -p fuzz/corpus/payload
	cargo +nightly fuzz run payload fuzz/corpus/payload fuzz/seeds -- -max_total_time=$(SECONDS)

# So many documents, each read fast and by the whole grammar of JSON. `cargo test` compares 300,000.
DOCUMENTS ?= 10000000

fuzz-decode:
	RESIDUA_DOCUMENTS=$(DOCUMENTS) cargo test --release --lib what_is_read_fast -- --nocapture

# Parts of residua against libraries that are used from Python, which are installed into a virtual environment, and whole programs on a
# real broker: ratios.
PEERS := $(or $(CARGO_TARGET_DIR),target)/peers

bench-peers:
	python3 -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --requirement benches/peers/requirements.txt
	PEERS_PYTHON=$(abspath $(PEERS))/bin/python cargo bench --bench peers

# What takes longer than a test run. `cargo test` runs all tests, and a short run of the faults.

# All faults of tests/faults/main.rs, hours; SHARE=0.05 for a part of them, FAULTS="--only kill --delivery exactly-once" for some.
SHARE ?= 1
FAULTS ?=

.PHONY: test-faults fuzz bench-peers
test-faults:
	cargo test --release --test faults -- --share $(SHARE) $(FAULTS)

# Any bytes as a message, for so many seconds; needs `cargo install cargo-fuzz` and a nightly compiler. `cargo test` feeds a million.
SECONDS ?= 60

fuzz:
	cargo +nightly fuzz run payload -- -max_total_time=$(SECONDS)

# Parts of residua against libraries that are used from Python, which are installed into a virtual environment: one table of ratios.
PEERS := $(or $(CARGO_TARGET_DIR),target)/peers

bench-peers:
	python3 -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --requirement benches/peers/requirements.txt
	PEERS_PYTHON=$(abspath $(PEERS))/bin/python cargo bench --bench peers

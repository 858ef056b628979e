# What takes longer than a test run. `cargo test` runs all tests, and a short run of the faults.

# All faults of tests/faults/main.rs, hours; SHARE=0.05 for a part of them, FAULTS="--only kill --delivery exactly-once" for some.
SHARE ?= 1
FAULTS ?=

.PHONY: test-faults
test-faults:
	cargo test --release --test faults -- --share $(SHARE) $(FAULTS)

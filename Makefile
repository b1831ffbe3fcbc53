types:
	@rm -rf build/types && mkdir -p build/types/attunet
	@ln -s $(CURDIR)/toolkit/* $(CURDIR)/launch $(CURDIR)/export $(CURDIR)/benchmarks build/types/attunet/
	MYPYPATH=build/types .venv/bin/mypy -p attunet

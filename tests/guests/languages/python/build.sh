make -f ../../../../examples/python/Makefile build/faulty.wasm SDK=../../../../examples/python WIT=../../../../wit WORLD=request-filter-plugin

make -f ../../../../examples/c/Makefile build/faulty.wasm build/greedy.wasm SDK=../../../../sdk/c

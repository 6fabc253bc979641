make -f ../../../../examples/c/Makefile build/faulty.wasm build/greedy.wasm build/simple.wasm SDK=../../../../sdk/c

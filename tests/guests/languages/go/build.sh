make -f ../../../../examples/go/Makefile build/faulty.wasm build/greedy.wasm build/simple.wasm

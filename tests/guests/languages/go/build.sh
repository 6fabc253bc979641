plugins() { for name in faulty chance greedy simple table keeper orders; do echo "build/$name.wasm"; done; }
make -f ../../../../examples/go/Makefile $(plugins)

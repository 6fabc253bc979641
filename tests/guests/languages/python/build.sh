build() {
  make -f ../../../../examples/python/Makefile "build/$2.wasm" SDK=../../../../examples/python WIT=../../../../wit "WORLD=$1"
}
build request-filter-plugin faulty
build registrar-plugin simple

build() {
  make -f ../../../../examples/python/Makefile "build/$2.wasm" SDK=../../../../examples/python WIT=../../../../wit "WORLD=$1"
}
build request-filter-plugin faulty
build request-filter-plugin chance
build registrar-plugin simple

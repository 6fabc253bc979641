mkdir -p build
componentize() {
  ../../../../examples/javascript/node_modules/.bin/componentize-qjs --sync --stub-wasi --wit ../../../../wit --world "$1" --js "$2.js" --output "build/$2.wasm"
}
componentize request-filter-plugin faulty
componentize registrar-plugin simple

mkdir -p build
cp ../../../../examples/javascript/message-flow.js build/
componentize() {
  printf "import './message-flow.js';\nexport * from '../$2.js';\n" > "build/$2.js"
  ../../../../examples/javascript/node_modules/.bin/componentize-qjs --sync --wit ../../../../wit --world "$1" --js "build/$2.js" --output "build/$2.wasm"
}
componentize request-filter-plugin faulty
componentize request-filter-plugin chance
componentize registrar-plugin simple

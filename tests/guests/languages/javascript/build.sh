mkdir -p build
../../../../examples/javascript/node_modules/.bin/componentize-qjs --sync --stub-wasi --wit ../../../../wit --world request-filter-plugin --js faulty.js --output build/faulty.wasm

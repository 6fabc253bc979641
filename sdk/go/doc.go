// Package sdk holds what a Message Flow plugin in Go imports: a package for each interface of wit/,
// which is the reference manual, with the same names.
//
// A plugin is a program that names its functions in init and has an empty main:
//
//	func init() { registrar.Handle(resolve) }
//	func main() {}
//
// and is built with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o geo.wasm .
package sdk

// Package speed measures the command as its users run it: processes on trees of files, beside other tools.
package speed

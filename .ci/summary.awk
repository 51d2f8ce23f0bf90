# Prints, of the log of `go test -v`, what the tests that failed or were skipped have
# said, and what no test has: compilers, panics, make. Lines of tests that ran at once are
# told apart by the marks that -v makes.
function flush() {
  for (t in failed) printf "%s", said[t]
  delete said; delete failed; test = ""
}
/^=== (RUN|CONT|NAME|PAUSE) / { test = $3; next }
/^ *--- PASS: / || /^go: downloading/ { next }
/^ *--- SKIP: / { printf "%s\n%s", $0, said[$3]; next }
/^(ok|PASS|\?)/ { flush(); next }
/^FAIL/ { flush(); if (NF > 1) print; next }
/^ *--- FAIL: / { test = $3 }
/^ *--- FAIL: |^panic:|^fatal error:|DATA RACE/ { failed[test] = 1 }
test == "" { print; next }
{ said[test] = said[test] $0 "\n" }
END { flush() }

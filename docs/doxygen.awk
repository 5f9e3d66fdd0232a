# Doxygen's input filter: the plain comments of the headers become its own, line by line as they stand there, so that tables
# and formulas stay what they are. A comment above a declaration belongs to it, one behind it too.

function text(line) { # characters that Doxygen would read as commands, links or HTML
  gsub(/\\/, "\\\\", line)
  gsub(/@/, "\\@", line)
  gsub(/#/, "\\#", line)
  gsub(/&/, "\\&amp;", line)
  gsub(/</, "\\&lt;", line)
  gsub(/>/, "\\&gt;", line)
  gsub(/--/, "\\--", line)
  if (match(line, /^ *- /)) line = substr(line, 1, RLENGTH - 2) "&bull; " substr(line, RLENGTH + 1)
  return line
}

function opening() { # attend.h begins with a page of promises
  return "/** " (NR > 1 ? "" : FILENAME ~ /attend\.h$/ ? "@mainpage The promises of attend.h\n" : "@file\n") "<pre>"
}

# The lines of a block comment, and what begins with // in a row.
inside {
  end = index($0, "*/")
  line = end ? substr($0, 1, end - 1) : $0
  sub(/^ *\*? ?/, "", line)
  sub(/ +$/, "", line)
  print text(line) (end ? "</pre> */" : "")
  inside = !end
  next
}
slashes && !/^ *\/\// { print "</pre> */"; slashes = 0 }
/^ *\/\/\/?( |$)/ {
  line = $0
  sub(/^ *\/\/\/? ?/, "", line)
  print (slashes ? "" : opening()) text(line)
  slashes = 1
  next
}

# Rules between the parts of a header.
/^ *\/\*? ?-----/ || /^\/\* -+ .* -- \*\/$/ { print ""; next }

/^ *\/\*/ {
  end = index($0, "*/")
  line = end ? substr($0, 1, end - 1) : $0
  sub(/^ *\/\*\*? ?/, "", line)
  sub(/ +$/, "", line)
  print opening() text(line) (end ? "</pre> */" : "")
  inside = !end
  next
}
/^#endif/ { print; next }

# An inline namespace is no part of the names that users write.
{ sub(/^inline namespace [A-Za-z_]+ \{/, "extern \"C++\" {") }

# Behind code.
/[^ ].*\/\*.*\*\/ *$/ {
  begin = index($0, "/*")
  line = substr($0, begin)
  sub(/^\/\*\*?<? */, "", line)
  sub(/ *\*\/ *$/, "", line)
  print substr($0, 1, begin - 1) "/**< " text(line) " */"
  next
}
/[^ ].* \/\/\/?<? / {
  begin = index($0, " //")
  line = substr($0, begin)
  sub(/^ \/\/\/?<? */, "", line)
  print substr($0, 1, begin) "/**< " text(line) " */"
  next
}
{ print }

# JSON in, one line a value out: path/to/value=text. Array positions are path parts; \n stays as \n in the text.
BEGIN { RS = "\001" }
{
  text = $0; n = length(text); i = 1; depth = 0; key = ""
  while (i <= n) {
    c = substr(text, i, 1)
    if (c == "{") {
      depth++; kind[depth] = "object"; path[depth] = (depth > 1 ? path[depth - 1] key "/" : ""); key = ""; at_key = 1
    } else if (c == "[") {
      depth++; kind[depth] = "array"; index_[depth] = 0; path[depth] = (depth > 1 ? path[depth - 1] key "/" : ""); key = 0; at_key = 0
    } else if (c == "}" || c == "]") {
      depth--; at_key = 0; if (depth && kind[depth] == "array") key = index_[depth]
    } else if (c == ",") {
      if (kind[depth] == "array") { index_[depth]++; key = index_[depth]; at_key = 0 } else at_key = 1
    } else if (c == ":") {
      at_key = 0
    } else if (c == "\"") {
      value = ""; i++
      while (i <= n && (c = substr(text, i, 1)) != "\"") {
        if (c == "\\") {
          i++; escaped = substr(text, i, 1)
          if (escaped == "n") c = "\\n"
          else if (escaped == "u") { c = "\\u" substr(text, i + 1, 4); i += 4 }
          else c = escaped
        }
        value = value c; i++
      }
      if (kind[depth] == "object" && at_key) { key = value; at_key = 0 } else print path[depth] key "=" value
    } else if (c ~ /[-0-9tfn]/) {
      value = ""
      while ((c = substr(text, i, 1)) ~ /[-+.0-9a-zE]/ && i <= n) { value = value c; i++ }
      i--; print path[depth] key "=" value
    }
    i++
  }
}

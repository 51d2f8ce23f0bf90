package render

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
	"text/template"
	"unicode"

	"github.com/smarteros/deaddrop/render/dotenv"
)

// texts are the functions on text, with consul-template's names and order of
// arguments: what is worked on comes last, so that it can be piped in. Errors
// hold no argument, which may be a secret.
func texts() template.FuncMap {
	return template.FuncMap{
		"base64Decode":    func(s string) (string, error) { return base64Decode(base64.StdEncoding, s) },
		"base64Encode":    func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"base64URLDecode": func(s string) (string, error) { return base64Decode(base64.URLEncoding, s) },
		"base64URLEncode": func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) },
		"envQuote":        envQuote,
		"hmacSHA256Hex":   hmacSHA256Hex,
		"indent":          indent,
		"md5sum":          func(s string) string { sum := md5.Sum([]byte(s)); return hex.EncodeToString(sum[:]) },
		"regexMatch":      regexMatch,
		"regexReplaceAll": regexReplaceAll,
		"replaceAll":      replaceAll,
		"sha256Hex":       func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) },
		"split":           split,
		"splitToMap":      splitToMap,
		"toLower":         strings.ToLower,
		"toTitle":         toTitle,
		"toUpper":         strings.ToUpper,
		"trim":            func(cutset, s string) string { return strings.Trim(s, cutset) },
		"trimPrefix":      func(prefix, s string) string { return strings.TrimPrefix(s, prefix) },
		"trimSpace":       strings.TrimSpace,
		"trimSuffix":      func(suffix, s string) string { return strings.TrimSuffix(s, suffix) },
	}
}

// base64Decode does not say where the text is broken: positions and characters
// of a secret stay out of errors.
func base64Decode(enc *base64.Encoding, s string) (string, error) {
	decoded, err := enc.DecodeString(s)
	if err != nil {
		return "", problem("the value is not base64")
	}
	return string(decoded), nil
}

// envQuote is a value as a reader of .env files wants it behind the equals sign.
func envQuote(dialect string, value any) (string, error) {
	text, ok := scalar(value)
	if !ok {
		return "", problemf("envQuote wants text, a number or a truth value, not %s", kindName(value))
	}
	return dotenv.Quote(dotenv.Dialect(dialect), text)
}

func hmacSHA256Hex(message, key string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(message))
	return hex.EncodeToString(mac.Sum(nil))
}

// indent puts spaces before each line that holds something.
func indent(spaces any, s string) (string, error) {
	n, ok := whole(spaces)
	if !ok || n < 0 || n > 1000 {
		return "", problem("indent wants a number of spaces from 0 to 1000")
	}
	if err := fits(strings.Count(s, "\n")+1, int(n)); err != nil {
		return "", err
	}
	prefix := strings.Repeat(" ", int(n))
	lines := strings.SplitAfter(s, "\n")
	for i, line := range lines {
		if strings.TrimSuffix(line, "\n") != "" {
			lines[i] = prefix + line
		}
	}
	return strings.Join(lines, ""), nil
}

func regexMatch(expr, s string) (bool, error) {
	re, err := expression(expr, s)
	return err == nil && re.MatchString(s), err
}

func regexReplaceAll(expr, to, s string) (string, error) {
	re, err := expression(expr, s)
	if err != nil {
		return "", err
	}
	if err := replacedSize(re, s, to); err != nil {
		return "", err
	}
	return re.ReplaceAllString(s, to), nil
}

// split gives an empty list for what holds only blanks, as consul-template does.
func split(sep, s string) []string {
	if s = strings.TrimSpace(s); s == "" {
		return []string{}
	}
	return strings.Split(s, sep)
}

func splitToMap(between, inside, s string) (map[string]string, error) {
	pairs := map[string]string{}
	for _, pair := range split(between, s) {
		if key, value, ok := strings.Cut(pair, inside); ok {
			pairs[key] = value
		}
	}
	return pairs, nil
}

// toTitle begins every word with a capital.
func toTitle(s string) string {
	before := ' '
	return strings.Map(func(c rune) rune {
		begins := !unicode.IsLetter(before) && !unicode.IsDigit(before) && before != '_' && before != '\''
		before = c
		if begins {
			return unicode.ToTitle(c)
		}
		return c
	}, s)
}

// reading wraps the parsers of numbers and truth values: an empty text is the
// zero value, as for consul-template, and errors do not show the text.
func reading[T any](otherwise problem, parse func(string) (T, error)) func(string) (T, error) {
	return func(s string) (v T, err error) {
		if s == "" {
			return v, nil
		}
		if v, err = parse(s); err != nil {
			return v, otherwise
		}
		return v, nil
	}
}

func parseInt(s string) (int64, error)     { return strconv.ParseInt(s, 10, 64) }
func parseUint(s string) (uint64, error)   { return strconv.ParseUint(s, 10, 64) }
func parseFloat(s string) (float64, error) { return strconv.ParseFloat(s, 64) }

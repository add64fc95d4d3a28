/*
 * redis_python.c
 *		Values of JSON as the text that Python makes of them: what the
 *		library's broker writes of a header that is no string.
 */
#include "backends/redis/redis.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

static void append_python_value(StringInfo out, JsonbValue *value);

/* With a point it is a float, which Python shows as short as it can. */
static char *
python_number(Numeric number)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(number)));
	char	   *shortest;

	if (strchr(text, '.') == NULL)
		return text;
	shortest = float8out_internal(DatumGetFloat8(DirectFunctionCall1(numeric_float8,
																	 NumericGetDatum(number))));
	return strpbrk(shortest, ".e") ? shortest : psprintf("%s.0", shortest);
}

/* A string as Python shows it inside of a list or dict. */
static void
append_python_quoted(StringInfo out, const char *text, int length)
{
	char		quote = memchr(text, '\'', length) && !memchr(text, '"', length) ? '"' : '\'';

	appendStringInfoChar(out, quote);
	for (int i = 0; i < length; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if (c == '\\' || c == (unsigned char) quote)
			appendStringInfoChar(out, '\\');
		if (c == '\n')
			appendStringInfoString(out, "\\n");
		else if (c == '\r')
			appendStringInfoString(out, "\\r");
		else if (c == '\t')
			appendStringInfoString(out, "\\t");
		else if (c < 0x20 || c == 0x7f)
			appendStringInfo(out, "\\x%02x", c);
		else
			appendStringInfoChar(out, (char) c);
	}
	appendStringInfoChar(out, quote);
}

static void
append_python_container(StringInfo out, JsonbContainer *container)
{
	bool		is_object = JsonContainerIsObject(container);
	JsonbIterator *iterator = JsonbIteratorInit(container);
	JsonbIteratorToken token;
	JsonbValue	part;
	bool		first = true;

	check_stack_depth();
	appendStringInfoChar(out, is_object ? '{' : '[');
	while ((token = JsonbIteratorNext(&iterator, &part, true)) != WJB_DONE)
	{
		if (token != WJB_KEY && token != WJB_ELEM && token != WJB_VALUE)
			continue;
		if (token != WJB_VALUE && !first)
			appendStringInfoString(out, ", ");
		first = false;
		append_python_value(out, &part);
		if (token == WJB_KEY)
			appendStringInfoString(out, ": ");
	}
	appendStringInfoChar(out, is_object ? '}' : ']');
}

static void
append_python_value(StringInfo out, JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			appendStringInfoString(out, "None");
			break;
		case jbvString:
			append_python_quoted(out, value->val.string.val, value->val.string.len);
			break;
		case jbvNumeric:
			appendStringInfoString(out, python_number(value->val.numeric));
			break;
		case jbvBool:
			appendStringInfoString(out, value->val.boolean ? "True" : "False");
			break;
		default:
			append_python_container(out, value->val.binary.data);
			break;
	}
}

/* What str() makes of the value. */
char *
redis_python_text(JsonbValue *value)
{
	StringInfoData out;

	if (value->type == jbvString)
		return pnstrdup(value->val.string.val, value->val.string.len);
	initStringInfo(&out);
	append_python_value(&out, value);
	return out.data;
}

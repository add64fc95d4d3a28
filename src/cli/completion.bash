# bash completion of sagaz.  What can follow is read from "sagaz ... --help", so
# it is what the installed program takes.

_sagaz_words()
{
	"$1" ${group:+"$group"} ${command:+"$command"} --help 2>/dev/null
}

_sagaz_options()
{
	_sagaz_words "$1" | sed -nE 's/^  (-., )?(--[a-z-]+)(=?).*/\2\3/p'
}

# The words that an option takes, where --help names them all.
_sagaz_choices()
{
	_sagaz_words "$1" | sed -nE "s/^  $2=([a-z|]+) .*/\1/p" | tr '|' ' '
}

_sagaz()
{
	local program=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} before=
	local group= command= i choices
	COMPREPLY=()

	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
			storage | saga | outbox | delivery)
				[ -n "$group" ] || { group=${COMP_WORDS[i]}; continue; } ;;
		esac
		if [ -n "$group" ] && [ -z "$command" ] && [[ ${COMP_WORDS[i]} != -* ]]; then
			command=${COMP_WORDS[i]}
		fi
	done

	# "--type=sa" is three words to readline
	if [ "$word" = = ]; then
		word= before=${COMP_WORDS[COMP_CWORD - 1]}
	elif [ "${COMP_WORDS[COMP_CWORD - 1]}" = = ]; then
		before=${COMP_WORDS[COMP_CWORD - 2]}
	else
		before=${COMP_WORDS[COMP_CWORD - 1]}
	fi
	case $before in
		--*-file) COMPREPLY=($(compgen -f -- "$word")); return ;;
		--*-env) COMPREPLY=($(compgen -e -- "$word")); return ;;
		--type | --on-error)
			choices=$(_sagaz_choices "$program" "$before")
			COMPREPLY=($(compgen -W "$choices" -- "$word"))
			return ;;
	esac

	if [[ $word = -* ]]; then
		COMPREPLY=($(compgen -W "$(_sagaz_options "$program")" -- "$word"))
		[[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace 2>/dev/null
	elif [ -z "$group" ]; then
		COMPREPLY=($(compgen -W "storage saga outbox delivery" -- "$word"))
	elif [ -z "$command" ]; then
		choices=$(_sagaz_words "$program" | sed -nE "s/^  $group ([a-z-]+) .*/\1/p")
		COMPREPLY=($(compgen -W "$choices" -- "$word"))
	fi
}
complete -F _sagaz sagaz

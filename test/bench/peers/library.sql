-- The tables of the client library, with the constraints and indexes that it
-- creates, for what it does over a connection: a statement at a time.
DROP SCHEMA IF EXISTS bench_library CASCADE;
CREATE SCHEMA bench_library;
CREATE TABLE bench_library.sagas (
	saga_id varchar(255) PRIMARY KEY,
	saga_name varchar(255) NOT NULL,
	status varchar(50) NOT NULL,
	context jsonb,
	metadata jsonb,
	created_at timestamptz DEFAULT now(),
	updated_at timestamptz DEFAULT now()
);
CREATE INDEX ON bench_library.sagas (status);
CREATE INDEX ON bench_library.sagas (saga_name);
CREATE INDEX ON bench_library.sagas (created_at);
CREATE TABLE bench_library.saga_steps (
	id serial PRIMARY KEY,
	saga_id varchar(255) NOT NULL REFERENCES bench_library.sagas ON DELETE CASCADE,
	step_name varchar(255) NOT NULL,
	status varchar(50) NOT NULL,
	result jsonb,
	error text,
	executed_at timestamptz,
	compensated_at timestamptz,
	retry_count integer DEFAULT 0,
	UNIQUE (saga_id, step_name)
);
CREATE INDEX ON bench_library.saga_steps (saga_id);
CREATE INDEX ON bench_library.saga_steps (status);

-- The same save as one call, for those who put it on the server themselves.
CREATE FUNCTION bench_library.save(id text, name text, status text, steps jsonb,
		context jsonb) RETURNS void
	LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
	INSERT INTO bench_library.sagas (saga_id, saga_name, status, context, metadata)
		VALUES ($1, $2, $3, $5, '{}')
		ON CONFLICT (saga_id) DO UPDATE SET saga_name = excluded.saga_name,
			status = excluded.status, context = excluded.context,
			metadata = excluded.metadata, updated_at = now();
	DELETE FROM bench_library.saga_steps WHERE saga_id = $1;
	INSERT INTO bench_library.saga_steps (saga_id, step_name, status)
		SELECT $1, step ->> 'name', step ->> 'status'
		FROM jsonb_array_elements($4) WITH ORDINALITY AS s (step, i) ORDER BY i;
END
$$;

-- A scheduled event; it has no order.
INSERT INTO load.truth
	SELECT sagaz.insert_event('later', 'test', '0',
		available_at => clock_timestamp() + interval '300 ms'), 'later', 0;

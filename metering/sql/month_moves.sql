-- Whether a row of a month is open, or counts as a hold still.
SELECT EXISTS (SELECT FROM {table} WHERE state = 'open')
    OR EXISTS (SELECT FROM {table} WHERE hold_until > clock_timestamp())

\set saga random(1, 20)
\set count random(50, 200)
SELECT load.emit('s:saga', :count);
